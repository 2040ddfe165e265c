import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ResultSet;

/** Answers each targetServerType on its input with the data directory of the server that the driver chose. */
public class Targets {
    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String type = lines.readLine(); type != null; type = lines.readLine()) {
            String url = arguments[0] + "&targetServerType=" + type;
            try (Connection connection = DriverManager.getConnection(url);
                    ResultSet row = connection.createStatement().executeQuery("SHOW data_directory")) {
                row.next();
                System.out.println(row.getString(1));
            } catch (Exception error) {
                System.out.println("failed: " + error.getMessage());
            }
        }
    }
}
