"""Hansa: federated fine-tuning in which every member keeps its own walls."""
