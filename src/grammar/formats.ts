// Formats of strings, as patterns: each text that a pattern accepts has the format, and not every text of the format is accepted.
// Source: JSON Schema 2020-12 validation §7.3; RFC 3339 (dates), RFC 5321 (mail), RFC 3986 (URI), RFC 9562 (UUID), RFC 4291 (IPv6).

const DATE =
  '\\d{4}-(((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01]))|((0[469]|11)-(0[1-9]|[12]\\d|30))|(02-(0[1-9]|1\\d|2[0-8])))';
const TIME = '([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+\\-]([01]\\d|2[0-3]):[0-5]\\d)';
const LABEL = '[A-Za-z0-9]([A-Za-z0-9\\-]{0,20}[A-Za-z0-9])?';
const HOST = `${LABEL}(\\.${LABEL}){0,4}`;
const BYTE = '(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)';

export const FORMATS: Readonly<Record<string, string>> = {
  date: `^${DATE}$`,
  time: `^${TIME}$`,
  'date-time': `^${DATE}T${TIME}$`,
  duration:
    '^P(\\d{1,4}W|\\d{1,4}D(T\\d{1,4}[HMS])?|\\d{1,4}Y(\\d{1,4}M(\\d{1,4}D)?)?|T\\d{1,4}H(\\d{1,4}M(\\d{1,4}S)?)?|T\\d{1,4}[MS])$',
  email: `^[A-Za-z0-9_\\-+]{1,20}(\\.[A-Za-z0-9_\\-+]{1,20}){0,2}@${LABEL}(\\.${LABEL}){0,2}\\.[A-Za-z]{2,10}$`,
  hostname: `^${HOST}$`,
  ipv4: `^${BYTE}(\\.${BYTE}){3}$`,
  ipv6: '^([0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}$',
  uri: `^https?://${HOST}(:\\d{1,4})?(/[A-Za-z0-9_.~\\-]{0,40}){0,8}(\\?[A-Za-z0-9_.~=&\\-]{0,80})?(#[A-Za-z0-9_.~\\-]{0,40})?$`,
  uuid: '^[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$',
};
