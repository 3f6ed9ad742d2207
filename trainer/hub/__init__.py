"""Runs on the Hugging Face Hub."""
