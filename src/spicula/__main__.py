"""`python -m spicula`."""

from spicula.cli import main

raise SystemExit(main())
