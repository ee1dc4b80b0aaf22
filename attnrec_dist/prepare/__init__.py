"""Raw log -> data set. Start at pipeline.py; it reads as prose and names the file of each step."""
