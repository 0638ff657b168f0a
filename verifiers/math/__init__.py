"""How mathematical answers are read and compared."""
