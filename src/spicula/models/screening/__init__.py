"""The networks of the published four-view screening classifier."""
