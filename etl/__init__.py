"""promptContent ETL: keeps Redis caches true to MongoDB. Start reading at `etl.sync.cycle`."""
