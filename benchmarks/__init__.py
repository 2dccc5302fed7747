"""One script for each question about speed and memory; figures are ratios within one run."""
