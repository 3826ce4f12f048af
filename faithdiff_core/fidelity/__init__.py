"""How faithful a picture is, in numbers and maps; may import the core's top and colors."""
