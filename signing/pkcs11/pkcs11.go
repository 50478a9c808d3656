// Package pkcs11 signs with keys in hardware security modules.
//
// The vendor's module is foreign machine code in our address space, and it
// crashes and hangs as it pleases. It is therefore loaded by a child process
// only ([Program], which a binary registers with package worker under
// [ProgramName]), one per key. That child reads the PIN itself; the daemon
// never has it. [Keys] is the daemon's side.
//
// What keeps signing going when a device does not:
//
//   - a session that is spoilt is replaced; a login or handle that was lost is
//     restored; for everything else the child ends and another one starts from
//     the beginning, with growing pauses;
//   - an operation that outlives its deadline costs the child its life;
//   - every signature is checked with the public key before it is returned;
//   - a PIN that a token has refused is never presented again, over restarts.
package pkcs11

// ProgramName is the name under which [Program] is to be handed to
// worker.Main.
const ProgramName = "hsm-agent"
