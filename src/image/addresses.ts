// Which addresses a server may connect to when a client names the URL. Everything that is not part of the public internet is refused: loopback,
// private and link-local networks (cloud metadata among them), and every form in which IPv6 carries an IPv4 address.
// Source: IANA's special-purpose address registries (RFC 6890).

import type { LookupAddress } from 'node:dns';
import { lookup as systemLookup } from 'node:dns';
import { BlockList, isIP, type LookupFunction } from 'node:net';
import { invalidOption } from '../options';

/** Whether an IP address, IPv6 without brackets, may be connected to. */
export type AddressRule = (address: string) => boolean;

const NOT_PUBLIC_V4 = [
  ...['0.0.0.0/8', '10.0.0.0/8', '100.64.0.0/10', '127.0.0.0/8', '169.254.0.0/16', '172.16.0.0/12', '192.0.0.0/24'],
  ...['192.0.2.0/24', '192.88.99.0/24', '192.168.0.0/16', '198.18.0.0/15', '198.51.100.0/24', '203.0.113.0/24'],
  ...['224.0.0.0/4', '240.0.0.0/4'],
];
/** Only 2000::/3 is public, without Teredo and other protocol addresses, documentation and 6to4. NAT64, mapped and local ones lie outside. */
const PUBLIC_V6 = '2000::/3';
const NOT_PUBLIC_V6 = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20'];

/** Addresses of the public internet, and those in `also`, subnets such as `10.1.0.0/16`. @throws SparseVilaError `ERR_OPTION_INVALID` */
export function publicAddresses(also: readonly string[] = []): AddressRule {
  const refusedV4 = blockList(NOT_PUBLIC_V4);
  const publicV6 = blockList([PUBLIC_V6]);
  const refusedV6 = blockList(NOT_PUBLIC_V6);
  const added = blockList(also);
  return (address) => {
    const version = isIP(address);
    if (version === 0) return false;
    const family = version === 4 ? 'ipv4' : 'ipv6';
    if (added.check(address, family)) return true;
    if (version === 4) return !refusedV4.check(address, family);
    return publicV6.check(address, family) && !refusedV6.check(address, family);
  };
}

function blockList(subnets: readonly string[]): BlockList {
  const list = new BlockList();
  for (const subnet of subnets) {
    const [network = '', bits, rest] = subnet.split('/');
    const version = isIP(network);
    const prefix = bits === undefined ? (version === 4 ? 32 : 128) : /^\d{1,3}$/.test(bits) ? Number(bits) : -1;
    if (version === 0 || rest !== undefined || prefix < 0 || prefix > (version === 4 ? 32 : 128))
      throw invalidOption('addresses', 'an address or a subnet such as 10.1.0.0/16', JSON.stringify(subnet));
    list.addSubnet(network, prefix, version === 4 ? 'ipv4' : 'ipv6');
  }
  return list;
}

/** The address in a URL's host, such as `::1` of `[::1]`; undefined if the host is a name. */
export function literalAddress({ hostname }: URL): string | undefined {
  const address = hostname.replace(/^\[|\]$/g, '');
  return isIP(address) === 0 ? undefined : address;
}

/**
 * A name look-up for a connection that fails if any address of the name is refused. The socket connects to the addresses that were checked, so
 * that a name that resolves differently the next time gains nothing.
 */
export function checkedLookup(
  rule: AddressRule,
  refused: (address: string) => Error,
  look = systemLookup,
): LookupFunction {
  return (hostname, options, done) => {
    look(hostname, { ...options, all: true }, (error, found: LookupAddress[]) => {
      if (error) return done(error, '', 0);
      const bad = found.find(({ address }) => !rule(address));
      const [first] = found;
      if (bad !== undefined || first === undefined) return done(refused(bad?.address ?? 'no address'), '', 0);
      if (options.all === true) done(null, found);
      else done(null, first.address, first.family);
    });
  };
}
