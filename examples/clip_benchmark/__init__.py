"""The benchmark that CLIPs are merged on: recipes with the published models, and files to try them with."""
