// A module that ends whoever imports it.
process.exit(5);
