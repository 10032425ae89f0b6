"""What runs a network: OpenVINO on a CPU, torch on a GPU. `exams.networks` chooses."""
