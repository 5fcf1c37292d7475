/** The one typed reason for which a privileged test may be skipped; in CI (as root) it never is. */
export const UNPRIVILEGED: 'needs root: namespaces, taps and eBPF' | undefined =
  process.getuid?.() === 0 ? undefined : 'needs root: namespaces, taps and eBPF';
