//! What the cluster holds when everything is over, as the primary tells it.

use crate::chaos::serial::Orders;
use crate::node::Node;
use std::collections::{BTreeMap, HashMap};

/// Everything the clients may have changed.
#[derive(Debug, Default)]
pub struct Truth {
    /// The lists.
    pub lists: Orders,
    /// Value and version of each register.
    pub registers: BTreeMap<i64, (i64, i64)>,
    /// How often each number stands in the ledger.
    pub ledger: HashMap<i64, u32>,
    /// All money.
    pub money: i64,
    /// Accounts that do not hold what the ledger says.
    pub crooked: i64,
    /// How often each numbered row is there.
    pub rows: HashMap<(i32, i64), u32>,
}

/// Reads it all on one node.
pub async fn read(node: &Node) -> Result<Truth, String> {
    let lists = table(
        node,
        "SELECT coalesce(string_agg(k || ':' || array_to_string(v, ','), ' '), '') FROM lists",
    )
    .await?;
    let registers = table(
        node,
        "SELECT coalesce(string_agg(k || ':' || v || ':' || version, ' '), '') FROM registers",
    )
    .await?;
    let ledger = table(
        node,
        "SELECT coalesce(string_agg(id || ':' || n, ' '), '') FROM \
         (SELECT id, count(*) AS n FROM ledger GROUP BY 1) AS entries",
    )
    .await?;
    let rows = table(
        node,
        "SELECT coalesce(string_agg(writer || ':' || seq || ':' || n, ' '), '') FROM \
         (SELECT writer, seq, count(*) AS n FROM judge GROUP BY 1, 2) AS rows",
    )
    .await?;
    let money = node.sql("SELECT sum(balance) FROM accounts").await?;
    let crooked = node
        .sql(
            "SELECT count(*) FROM accounts AS a WHERE balance <> 100 \
             + coalesce((SELECT sum(amount) FROM ledger WHERE target = a.id), 0) \
             - coalesce((SELECT sum(amount) FROM ledger WHERE source = a.id), 0)",
        )
        .await?;
    Ok(Truth {
        lists: lists
            .iter()
            .map(|row| {
                (
                    number(&row[0]),
                    row[1].split(',').filter(|v| !v.is_empty()).map(number).collect(),
                )
            })
            .collect(),
        registers: registers
            .iter()
            .map(|row| (number(&row[0]), (number(&row[1]), number(&row[2]))))
            .collect(),
        ledger: ledger
            .iter()
            .map(|row| (number(&row[0]), row[1].parse().unwrap()))
            .collect(),
        money: number(&money),
        crooked: number(&crooked),
        rows: rows
            .iter()
            .map(|row| {
                (
                    (row[0].parse().unwrap(), number(&row[1])),
                    row[2].parse().unwrap(),
                )
            })
            .collect(),
    })
}

/// What must be the same on every node.
pub const DIGEST: &str = "SELECT md5(coalesce(string_agg(t, ' ' ORDER BY t), '')) FROM (\
     SELECT 'l' || k || ':' || v::text AS t FROM lists UNION ALL \
     SELECT 'r' || k || ':' || v || ':' || version FROM registers UNION ALL \
     SELECT 'a' || id || ':' || balance FROM accounts UNION ALL \
     SELECT 'g' || id FROM ledger UNION ALL \
     SELECT 'j' || writer || ':' || seq FROM judge) AS everything";

async fn table(node: &Node, query: &str) -> Result<Vec<Vec<String>>, String> {
    let text = node.sql(query).await?;
    Ok(text
        .split_whitespace()
        .map(|row| row.split(':').map(str::to_owned).collect())
        .collect())
}

fn number(text: impl AsRef<str>) -> i64 {
    text.as_ref().parse().unwrap()
}
