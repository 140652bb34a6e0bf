"""Where items come from: PostgreSQL loaders, query generators and item metas."""
