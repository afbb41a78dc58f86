// SPDX-License-Identifier: Apache-2.0

// Checks a passcode over gRPC: sign_in USER < passcode
//
// Set SPARECODE_AGENT_NODES, SPARECODE_CA, SPARECODE_AGENT_CERTIFICATE and
// SPARECODE_AGENT_KEY.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	sparecode "example.org/sign_in/sparecode/v1"
)

const (
	tryFor = 3 * time.Second
	allFor = 10 * time.Second
)

func main() {
	passcode, _ := bufio.NewReader(os.Stdin).ReadString('\n')
	decision, err := signIn(os.Args[1], strings.TrimSpace(passcode))
	if err != nil {
		fmt.Fprintln(os.Stderr, "No decision:", err)
		os.Exit(3)
	}
	fmt.Println(strings.TrimPrefix(decision.String(), "AUTHENTICATION_DECISION_"))
	// Anything else lets no one in. A next step is not shown here.
	if decision != sparecode.AuthenticationDecision_AUTHENTICATION_DECISION_ACCEPTED {
		os.Exit(1)
	}
}

// signIn asks one node after the other, with one request id.
func signIn(username, passcode string) (sparecode.AuthenticationDecision, error) {
	files, err := tlsFiles()
	if err != nil {
		return 0, err
	}
	request := &sparecode.AuthenticateRequest{
		RequestId: newRequestID(), Username: username, Passcode: passcode,
	}
	ctx, cancel := context.WithTimeout(context.Background(), allFor)
	defer cancel()
	for {
		for _, node := range strings.Split(os.Getenv("SPARECODE_AGENT_NODES"), ",") {
			response, failure := ask(ctx, node, files, request)
			if failure == nil {
				return response.GetDecision(), nil
			}
			switch status.Code(failure) {
			case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.ResourceExhausted:
				err = failure
			default:
				return 0, failure
			}
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func ask(
	ctx context.Context, node string, files credentials.TransportCredentials,
	request *sparecode.AuthenticateRequest,
) (*sparecode.AuthenticateResponse, error) {
	connection, err := grpc.NewClient(node, grpc.WithTransportCredentials(files))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	return sparecode.NewAuthenticationServiceClient(connection).Authenticate(ctx, request)
}

func tlsFiles() (credentials.TransportCredentials, error) {
	pair, err := tls.LoadX509KeyPair(
		os.Getenv("SPARECODE_AGENT_CERTIFICATE"), os.Getenv("SPARECODE_AGENT_KEY"))
	if err != nil {
		return nil, err
	}
	authorities, err := os.ReadFile(os.Getenv("SPARECODE_CA"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authorities) {
		return nil, fmt.Errorf("SPARECODE_CA holds no certificate")
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12,
	}), nil
}

// newRequestID returns a UUID of version 4 (RFC 9562).
func newRequestID() string {
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		panic(err)
	}
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}
