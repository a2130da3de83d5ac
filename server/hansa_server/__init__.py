"""What the coordinator runs: the federation and, over Flower, the server app."""
