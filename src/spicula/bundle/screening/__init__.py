"""The bundle of a four-view screening classifier: its networks, its numbers, and where they come from."""
