"""From the records of a study to its tables, figures and page; reads `record.json` files and nothing else."""
