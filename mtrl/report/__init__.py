"""What runs found, as one page, pictures and tables: `python -m mtrl.report RUN...`."""
