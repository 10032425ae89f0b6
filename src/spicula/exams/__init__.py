"""Exams: the four-view screening classifier as a staged, incremental, versioned pipeline."""
