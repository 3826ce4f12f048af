"""All that knows the host: its versions, folders, memory, loaders and inputs; may import no other room."""
