//! The nodes of a cluster as a client sees them: any of them can be asked.

use super::http::{self, Question, Reply, Silence};
use super::out::CliError;
use super::target::{ClusterAddress, Trust};
use serde_json::Value;

/// The nodes of a cluster.
#[derive(Clone, Debug)]
pub(super) struct Client {
    urls: Vec<String>,
    trust: Trust,
}

/// An answer and who gave it.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// The document.
    pub(super) document: Value,
    /// The node's address.
    pub(super) url: String,
    /// The document's entity tag, where it has one.
    pub(super) tag: Option<String>,
}

impl Client {
    /// Asks these nodes.
    pub(super) fn new(address: &ClusterAddress) -> Self {
        Self {
            urls: address.urls.clone(),
            trust: address.trust.clone(),
        }
    }

    /// Asks one more node when all others are silent.
    pub(super) fn learn(&mut self, api_url: &str) {
        let url = base(api_url);
        if !self.urls.contains(&url) {
            self.urls.push(url);
        }
    }

    /// The document of the first node that has it. That node is asked first from now on.
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, CliError> {
        let mut silent = Vec::new();
        for (at, url) in self.urls.iter().enumerate() {
            match self.read(url, path).await {
                Ok((document, tag)) => {
                    let answer = Answer {
                        document,
                        url: url.clone(),
                        tag,
                    };
                    self.urls.swap(0, at);
                    return Ok(answer);
                }
                Err(reason) => silent.push(format!("{url}: {reason}")),
            }
        }
        Err(CliError::Unreachable(silent))
    }

    /// The document of that very node, or why there is none.
    pub(super) async fn get_from(&self, url: &str, path: &str) -> Result<Value, String> {
        self.read(url, path).await.map(|(document, _)| document)
    }

    async fn read(&self, url: &str, path: &str) -> Result<(Value, Option<String>), String> {
        let reply = self
            .send(url, &Question::get(path))
            .await
            .map_err(Silence::reason)?;
        match reply.status {
            200 => match serde_json::from_str(&reply.text) {
                Ok(document) => Ok((document, reply.tag)),
                Err(_) => Err("its answer is no JSON".to_owned()),
            },
            503 => Err("it is still starting".to_owned()),
            other => Err(format!("it answers {other}")),
        }
    }

    /// Asks that very node anything.
    pub(super) async fn send(&self, url: &str, question: &Question<'_>) -> Result<Reply, Silence> {
        http::exchange(&base(url), question, &self.trust).await
    }

    /// Asks the first node that can be reached, those at `first` before all others. A question that may have been heard is
    /// not repeated to another node.
    pub(super) async fn send_any(&self, first: &[&str], question: &Question<'_>) -> Result<Reply, CliError> {
        let mut urls: Vec<String> = Vec::new();
        let given = first.iter().map(|url| base(url));
        for url in given.chain(self.urls.iter().cloned()) {
            if !url.is_empty() && !urls.contains(&url) {
                urls.push(url);
            }
        }
        let mut silent = Vec::new();
        for url in urls {
            match self.send(&url, question).await {
                Ok(reply) => return Ok(reply),
                Err(Silence::NotReached(reason)) => silent.push(format!("{url}: {reason}")),
                Err(Silence::Unknown(reason)) => return Err(CliError::Unheard { url, reason }),
            }
        }
        Err(CliError::Unreachable(silent))
    }
}

/// Scheme and authority of an address, without its path.
fn base(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.split('/').next().unwrap_or(rest)),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cut() {
        assert_eq!(base("http://h:1/patroni"), "http://h:1");
        assert_eq!(base("https://[::1]:1"), "https://[::1]:1");
    }
}
