// Specs run as tsc compiled them (dist/spec), so what is tested is what is type-checked and shipped.
module.exports = {
  rootDir: __dirname,
  testMatch: ['<rootDir>/dist/spec/**/*.spec.js'],
  testEnvironment: '<rootDir>/spec/environment.js',
  setupFilesAfterEnv: ['<rootDir>/spec/assertions.js'],
  transform: {},
  testTimeout: 900_000, // against hangs only: how fast things are is the benchmarks' business
  maxWorkers: 2,
  testSequencer: '<rootDir>/scripts/jest_order.cjs',
  // With --coverage, which costs up to a third of the time. What specs run in processes of their own (commands, threads) is not counted.
  coverageProvider: 'v8',
  coverageReporters: ['text-summary'],
  collectCoverageFrom: ['<rootDir>/dist/src/**/*.js'],
};
