"""What `etl init` proposes for a database."""
