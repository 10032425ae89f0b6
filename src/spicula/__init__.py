"""Spicula: from breast images to explained, exported and honestly evaluated classifiers."""

__version__ = "0.1.0"

#: Stands on everything that a person reads.
RESEARCH_NOTICE = "Research use only. Not a medical device."
