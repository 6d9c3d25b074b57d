//! The ports, and what is said of one that cannot be had.

use std::{io, net::IpAddr};

use tokio::net::TcpListener;

use super::config::ListenAddress;

pub(super) async fn bind(address: &ListenAddress) -> anyhow::Result<TcpListener> {
    let ListenAddress {
        ip,
        ip_flag,
        port,
        port_flag,
    } = address;
    let result = match ip {
        Some(ip) => TcpListener::bind((*ip, *port)).await,
        None => bind_all(*port).await,
    };
    result.map_err(|error| {
        let ip = ip.map_or_else(|| "any address".to_owned(), |ip| ip.to_string());
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                anyhow::anyhow!("{port_flag} {port}: in use on {ip}; stop the process that listens there, or choose another port")
            }
            io::ErrorKind::AddrNotAvailable => {
                anyhow::anyhow!("{ip_flag} {ip}: not an address of this machine; give one that it has, or leave the flag out for all")
            }
            io::ErrorKind::PermissionDenied => {
                anyhow::anyhow!("{port_flag} {port}: not permitted; choose a port from 1024 on, and let a Service map 443 to it")
            }
            _ => anyhow::anyhow!("{port_flag} {port}: cannot listen on {ip}: {error}; choose another {ip_flag} or {port_flag}"),
        }
    })
}

/// IPv6's "any" takes IPv4 as well on Linux; where a machine has no IPv6, IPv4's.
async fn bind_all(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind((IpAddr::from([0; 16]), port)).await {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
            ) =>
        {
            TcpListener::bind((IpAddr::from([0; 4]), port)).await
        }
        bound => bound,
    }
}
