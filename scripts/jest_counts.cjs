// A jest reporter that ends the output with `N passed, N failed`, for people and programs that read last lines.
// A spec file that could not run at all counts as one failure.

const { writeSync } = require('node:fs');

module.exports = class {
  onRunComplete(_contexts, results) {
    const failed = results.numFailedTests + results.numRuntimeErrorTestSuites;
    // At exit, because jest prints its own summary after the reporters.
    process.once('exit', () => writeSync(1, `${results.numPassedTests} passed, ${failed} failed\n`));
  }
};
