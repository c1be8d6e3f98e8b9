"""Transformers with their own self-attention: classifiers and answerers of the Hugging Face Hub."""
