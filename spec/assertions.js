// A test that asserts nothing fails. Runs before the tests of every spec file (jest.config.js).
beforeEach(() => expect.hasAssertions());
