"""What runs models: `graphs` computes, `local` puts a bounded line before it, `remote` asks another server."""
