"""The prepared data set: its format (shards), the order of its samples, the loader that turns them into batches."""
