"""What comes out of a workspace: an exam in full, its report, tables of predictions, DICOM results."""
