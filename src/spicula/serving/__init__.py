"""The service: predictions over HTTP, a page for readers, KServe v2 and DICOMweb.

request -> protocol (header limits) -> guard (who, how much, how long) -> routes -> decoding -> inference -> answer
                                                                            |
                                                                            +-> exams (the pipeline and its ledger)
"""
