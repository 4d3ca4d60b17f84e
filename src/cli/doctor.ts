// `sparsevila doctor`: reports what is installed on this machine and what is missing. Exit code 1 if something required is missing.

import type { CommandModule } from 'yargs';
import { diagnose, formatReport } from '../runtime/doctor';

interface DoctorArguments {
  readonly json: boolean;
}

export const doctorCommand: CommandModule<object, DoctorArguments> = {
  command: 'doctor',
  describe: 'Check this machine: what is installed, what is missing, and how to fix it',
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
