//! What destinations were called.

use super::Engine;
use crate::connections::Key;

impl Engine {
    /// Notes what the destination of a flow that has just begun was called by then:
    /// answers are told before the connections that came after them.
    pub(super) fn put_domain(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(&key) else {
            return;
        };
        if connection.is_accepted() {
            // Its destination is this host.
            return;
        }
        let Some(destination) = connection.destination_ip() else {
            return;
        };
        let domain = self.names.of(
            connection.netns,
            destination,
            &connection.image,
            connection.started_ns,
        );
        connection.domain = domain.map(Box::new);
    }
}
