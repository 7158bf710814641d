//! Publishing: permission first, then the content, then a frame for every recipient.

use std::time::Duration;

use log::{info, log};

use super::Hub;
use super::access::policy::PublishRight;
use super::answers::{PUBLISHER_TOKEN_NEEDED, refuse, reply_error};
use super::command::{self, CommandError, ErrorCode, Publication, Publish};
use crate::application::{Delivered, Outbox};
use crate::id::ConnectionId;
use crate::ws::close::CloseCode;

impl Hub {
    /// Takes a notification that came over a connection, and answers.
    pub(super) fn handle_publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) {
        let Some((rights, peer)) = self.connections.find(id) else {
            debug_assert!(false, "messages come from admitted connections");
            return;
        };
        let may_publish = match rights.publish {
            PublishRight::Granted => true,
            PublishRight::WithToken => self.admit_publisher(id, publish, outbox),
            PublishRight::Never => false,
        };
        if !may_publish {
            self.metrics.notifications_forbidden += 1;
            let level = self.forbidden_log.level(outbox.now());
            log!(level, connection:% = id, peer:% = peer; "{id} from {peer} may not publish");
            let detail = match rights.publish {
                PublishRight::WithToken => PUBLISHER_TOKEN_NEEDED,
                _ => "this connection may not publish",
            };
            let error = CommandError::new(ErrorCode::Forbidden, detail);
            return refuse(id, &error, outbox);
        }
        match self.publish(id, publish, outbox) {
            Ok(delivered) if rights.stays => outbox.reply(&command::published_reply(delivered)),
            Ok(delivered) => {
                outbox.close(CloseCode::NORMAL, &command::published_reason(delivered));
            }
            Err(error) if rights.stays => reply_error(id, &error, outbox),
            Err(error) => refuse(id, &error, outbox),
        }
    }

    /// Lets a connection publish that has put a publisher's token beside its notification.
    fn admit_publisher(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) -> bool {
        let token = publish.token.as_deref();
        if !token.is_some_and(|token| self.policy.accepts_publish_token(token)) {
            return false;
        }
        if let Some((rights, peer)) = self.connections.find(id) {
            self.uncount(id, rights.publish, peer);
        }
        self.connections.grant_publish(id);
        if let Some((rights, _)) = self.connections.find(id) {
            // It need not show a client's token any more; one that it has shown expires as before.
            let deadline = self.clearances.expiry(id);
            outbox.readmit(self.admission(rights, deadline));
        }
        true
    }

    fn publish(
        &mut self,
        id: ConnectionId,
        publish: &Publish<'_>,
        outbox: &mut dyn Outbox,
    ) -> Result<Delivered, CommandError> {
        let publication = publish.read().inspect_err(|_| {
            self.metrics.notifications_invalid += 1;
        })?;
        Ok(self.deliver(id, &publication, outbox))
    }

    /// Hands a notification to every connection that subscribed to it.
    pub(super) fn deliver(
        &mut self,
        id: ConnectionId,
        publication: &Publication<'_>,
        outbox: &mut dyn Outbox,
    ) -> Delivered {
        let start = outbox.now();
        self.recipients.clear();
        self.index
            .collect_recipients(&publication.notification, &mut self.recipients);
        let matched = outbox.now();
        let delivered = if self.recipients.is_empty() {
            Delivered::default()
        } else {
            outbox.deliver(&publication.frame(), &self.recipients)
        };
        let end = outbox.now();
        let micros = |time: Duration| time.as_micros() as u64;
        self.metrics.notifications_delivered += 1;
        self.metrics
            .recipients
            .observe(self.recipients.len() as u64);
        self.metrics.match_micros.observe(micros(matched - start));
        self.metrics.fan_out_micros.observe(micros(end - matched));
        let micros = micros(end - start);
        let Delivered { queued, dropped } = delivered;
        info!(connection:% = id; "{id} published to {queued} connections, {dropped} dropped, in {micros} us");
        delivered
    }
}
