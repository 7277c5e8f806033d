"""Client: the library, from its rules to its two faces, Client and AsyncClient."""
