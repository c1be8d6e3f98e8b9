"""What tests share: tiny networks, batches, models in folders, worlds with a known answer, whole runs."""
