"""The five stages written down for orchestrators of others."""
