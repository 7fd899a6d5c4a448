//! What end-to-end tests and the demo share: network namespaces, the story of helloworld in them, servers, clients.
//!
//! [`netns`] makes namespaces and runs things in them, [`story`] puts a client, a node and pods together, [`server`]
//! and [`load`] are the two ends of a connection, [`resources`] is what a user would write, [`agent`] runs the real
//! `canary` on it, [`stage`] is all of that together, [`tally`] judges what arrived. [`cleanup`] leaves nothing behind.
//! [`clients`] has services whose servers and clients others have written.
//! [`requests`] are clients that lose none, [`manager`] is a service manager that keeps sockets.
//! [`focused`] is the story's second half, where a cookie decides.
//! [`apiserver`] is an API server of Kubernetes, [`cluster`] the story in its objects.
//! [`cgroup`] is where processes are that the programs of a cgroup see.
//! [`kernel`] runs the programs on single packets, [`probe`] looks at what happens to connections and frames in detail.
mod account;
pub mod agent;
pub mod apiserver;
pub mod background;
pub mod cgroup;
pub mod cleanup;
pub mod clients;
pub mod cluster;
pub mod focused;
pub mod kernel;
pub mod load;
pub mod manager;
pub mod netns;
pub mod probe;
pub mod requests;
pub mod resources;
pub mod server;
pub mod stage;
pub mod story;
pub mod tally;
