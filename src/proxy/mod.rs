//! The ports that lead to whoever is primary, and to its replicas: a process of its own on every node.
//!
//! ```text
//!   daemon                                  proxy (process, session of its own)
//!   ------                                  ----------------------------------------------------------
//!   Facts --> draw (pure) --> Keeper  <-- proxy.sock, JSON lines -->  Counter   the orders, the counters
//!             terms, routes, lease    \-- starts it, finds it again      |- Doors     both ports, which the first thread serves
//!                                                                         '- House     what all sessions share
//!   clients --> a thread each with its own reactor: Guest --> Seeker --> Relay + session::Follower
//!                                                   opening    which     bytes    what they mean
//! ```
//!
//! **A process of its own**, because its load must not delay a renewal of the lease and a daemon that hangs, dies or is
//! replaced must not disturb a session. It runs a little below the daemon (`nice`), each of its threads has a reactor of
//! its own, so no session is ever moved between threads, and it is the first that has to go where memory runs out. A
//! daemon that comes back finds it by its socket, as it finds the guard.
//!
//! **When it ends.** The daemon's orderly end (SIGTERM, `systemctl stop`) is its end too: it takes no more clients, ends
//! sessions that are idle with 57P01, and the others after two seconds. In a pause the daemon leaves PostgreSQL as it is,
//! and the proxy with it. A daemon that was killed has said nothing, so the proxy goes on: that is also how a new program
//! is put to work without a client noticing. Without the section in the node file, a proxy that is found is ended. When the
//! Raft directory is wiped nobody could ever find it again, and it ends by itself.
//!
//! **Where clients are led.** Writers to the primary of the agreed epoch, while it says itself that its gate is open. It
//! says so in a report that every voter hears at once, and the daemon pushes it on: nothing is polled, and who waits is led
//! on within milliseconds. (A node without a vote hears it with its next report's answer.) When the epoch moves, the
//! sessions of older ones are cut, with 57P01 where the stream is at a message's end. Readers go to the running replica with
//! the fewest of this proxy's sessions; they stay where they are when it falls behind.
//!
//! A member that names a pooler beside its server (`postgresql.proxy_address`) has sessions led there; what the proxy itself
//! asks the primary it asks PostgreSQL. A pooler says of its server what it heard first, so nobody stands there early, and what
//! it says of being a standby is not believed.
//!
//! **Answers are checked after they came, not before**: bytes from the primary go to the client only if the lease of its
//! epoch still ran when they had arrived. Then whatever they show was true while nobody else could write, and however late
//! they reach the client, it is no older than the question. Whose proxy does not know (its daemon is silent, the leader is
//! away) keeps them until it does; a proxy with a silent daemon asks the other nodes' proxies. A primary's own node knows its own lease; others are told by the leader how much of the
//! last one is left, counted from when they asked. Where a fence replaces the wait for the lease (`stale_reads: allow`), a
//! primary that is cut off together with its clients may answer them until its lease ends.
//!
//! **Until the server's first answer has gone to the client**, a server that is gone or says that it starts or stops is
//! replaced by another one, as long as the client may wait. So new connections do not fail during a switchover: none is led
//! to a primary whose gate is shut, and log-ins that are under way then have a moment to end.
//!
//! **Told "committed" only when it is.** A commit whose wait for standbys was cancelled is answered with success and a
//! warning by PostgreSQL. `session::Follower` finds it; the completion is held until the standbys have everything up to it
//! (`proof`), or the session ends with 40003. A request to cancel such a wait is not delivered in the first place.
//!
//! **A session that rests** while its primary goes, or is lost without a word, is taken to the next one (`moving`), where
//! `proxy.auth_file` is set. The others are told whether something was under way that may have been committed (`ending`).
//!
//! **Encryption passes through**: SSLRequest and GSSENCRequest are the server's to answer, and its certificate is what the
//! client checks. Of such a session only bytes are counted; it is cut without words.
//!
//! **No TCP_USER_TIMEOUT**: the kernel ends a connection by it also when the other side merely does not read for that long
//! (a pager that stands open, a COPY that waits for a lock). Keepalives find a peer that is gone; for a server that is
//! gone the epoch moves.
//!
//! **A panic ends the process** in a release build, with every session in it, and the daemon starts another: the lints of the
//! workspace keep our own code from it, and what clients send goes through parsers that are tested with garbage.
//!
//! **Caveats.** The server sees the proxy's address as the client's: pg_hba.conf has to admit the nodes. A request to
//! cancel whose key is not known here (the session goes through another node's proxy, or is encrypted) is shown to every
//! server; one that does not know the key ignores it.

pub mod process;

mod ask;
mod cancel;
mod counter;
mod doors;
mod draw;
mod ending;
mod guest;
mod house;
mod keep;
mod moving;
mod opening;
mod preface;
mod proof;
mod relay;
mod seek;
pub mod session;
mod terms;
mod users;
mod words;

pub use keep::Keeper;
