"""Speed and evidence: runnable modules that print ratios or write tables. Not part of the distribution."""
