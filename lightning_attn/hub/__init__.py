"""Models of the Hugging Face Hub: finding, loading and judging them."""
