"""Training: the data on its way to the device, the loops, and the run folder that they leave."""
