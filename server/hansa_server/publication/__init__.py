"""From the final model to a signed package: compress, evaluate the file that ships, gate, export, sign."""
