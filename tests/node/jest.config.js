"use strict";

module.exports = {
  rootDir: __dirname,
  testMatch: ["<rootDir>/*.test.js"],
  testTimeout: 20_000,
};
