//! The engine: what happens on a carrier.

use std::sync::Arc;

use crate::carrier::{Carrier, Serve};

/// Serves sessions.
#[derive(Debug)]
pub struct Engine;

impl Serve for Engine {
    fn serve(self: Arc<Self>, carrier: Carrier) -> impl Future<Output = ()> + Send + 'static {
        async move { drop(carrier) }
    }

    async fn drain(self: Arc<Self>) {}

    fn is_ready(&self) -> bool {
        true
    }
}
