//! Clients of HTTP that the stores of a process share.
//!
//! Comes in: how a store wants to connect. Goes out: the client that connects like that; the first to ask makes it. Each client has its own
//! copy of the system's certificates and its own open connections, some hundred KiB that hundreds of pipelines need not have each.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use object_store::{
    ClientOptions,
    client::{HttpClient, HttpConnector, ReqwestConnector},
};

/// The clients of a process. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct HttpClients(Arc<Mutex<BTreeMap<String, HttpClient>>>);

impl HttpConnector for HttpClients {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // They cannot be compared, and tell all they have. There are as many as kinds of endpoints: with TLS and without.
        let wanted = format!("{options:?}");
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&wanted) {
            return Ok(client.clone());
        }
        let client = ReqwestConnector::default().connect(options)?;
        clients.insert(wanted, client.clone());
        Ok(client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_connects_alike_shares_a_client() {
        let (clients, plain) = (HttpClients::default(), ClientOptions::new().with_allow_http(true));
        for options in [ClientOptions::new(), plain.clone(), ClientOptions::new(), plain] {
            clients.connect(&options).unwrap();
        }
        assert_eq!(clients.0.lock().unwrap().len(), 2);
    }
}
