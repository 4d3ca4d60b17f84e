// `sparsevila doctor`: says what this machine has and what is missing. Exit code 1 when something needed is.

import type { CommandModule } from 'yargs';
import { diagnose, formatReport } from '../runtime/doctor';

interface DoctorArguments {
  readonly json: boolean;
}

export const doctorCommand: CommandModule<object, DoctorArguments> = {
  command: 'doctor',
  describe: 'Say what this machine has, what is missing, and what to do',
  builder: (yargs) =>
    yargs
      .option('json', { type: 'boolean', default: false, describe: 'Print the report as JSON' })
      .example('$0 doctor', 'A table of what was found')
      .example('$0 doctor --json > report.json', 'The same, to attach to an issue'),
  handler: runDoctor,
};

export async function runDoctor({ json }: DoctorArguments): Promise<void> {
  const report = await diagnose();
  process.stdout.write(json ? `${JSON.stringify(report, null, 2)}\n` : formatReport(report));
  if (!report.ok) process.exitCode = 1;
}
