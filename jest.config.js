// Specs run as tsc compiled them (dist/spec), so what is tested is what is type-checked and shipped.
module.exports = {
  rootDir: __dirname,
  testMatch: ['<rootDir>/dist/spec/**/*.spec.js'],
  testEnvironment: '<rootDir>/spec/environment.js',
  transform: {},
  testTimeout: 120_000,
  maxWorkers: 2,
};
